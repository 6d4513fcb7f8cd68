"""What is wrong with a data set: broken, duplicated, leaked, mislabelled and odd images."""
