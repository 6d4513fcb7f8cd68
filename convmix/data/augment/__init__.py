"""Random changes of training images, by workers or in batches on the device."""
