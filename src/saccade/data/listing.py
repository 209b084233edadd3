"""Listing: what `load_data` understands, in words."""

SOURCES = {
    "digits": "1,797 handwritten digits, 8 x 8, embedded: no network needed",
    "cifar10, cifar100": "60,000 colour pictures, 32 x 32, downloaded once (170 MB)",
    "mnist, fashion_mnist": "70,000 grey pictures, 28 x 28, downloaded once (12 and 31 MB)",
    "a folder of class folders": "FOLDER/cat/1.jpg, or FOLDER/train/cat/1.jpg beside val and test",
    "a folder of pictures": "FOLDER/1.jpg, at any depth and without labels: for `saccade pretrain`",
    "parquet": "a file, or a folder with train and test files, as on the hub: pip install 'saccade[parquet]'",
    "owner/name": "a data set of the Hugging Face hub: pip install 'saccade[hub]'",
    "IDX files": "a folder with train-images-idx3-ubyte(.gz) and its fellows, as of MNIST",
    "CIFAR's binary files": "a folder with data_batch_1.bin or train.bin and its fellows",
}
"""What is given as --data, and what it stands for."""
