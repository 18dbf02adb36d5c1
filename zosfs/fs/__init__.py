"""What the kernel asks for: the Operations class, handles, xattrs. Joins tree/ and content/."""
