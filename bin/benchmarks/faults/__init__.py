"""What our pages say of the library, one function a claim."""
