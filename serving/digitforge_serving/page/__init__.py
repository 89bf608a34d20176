"""The web page of the REST port: choose, look at and download synthetic images, and copy the code that makes them."""
