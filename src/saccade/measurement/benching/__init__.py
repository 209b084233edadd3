"""What `bench` times and weighs: layers, blocks and models of many sizes, in rounds."""
