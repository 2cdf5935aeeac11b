"""What goes over the wire, read and checked; nothing here waits but `asgi`."""
