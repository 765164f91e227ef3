/* A name server that does not answer: whoever asks for a name that begins with "hanging." waits for a minute. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <string.h>
#include <unistd.h>

int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **found) {
    static int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
    if (name && strncmp(name, "hanging.", 8) == 0) {
        sleep(60);
        return EAI_AGAIN;
    }
    if (!real)
        real = (int (*)(const char *, const char *, const struct addrinfo *, struct addrinfo **))dlsym(RTLD_NEXT, "getaddrinfo");
    return real(name, service, hints, found);
}
