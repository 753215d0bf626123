"""Image archives and folders, read and written without trusting them, and the headers of tar."""
