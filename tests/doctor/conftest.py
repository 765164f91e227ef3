"""What the doctor's tests share."""
