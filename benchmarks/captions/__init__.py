"""Captions of images: an LSTM decoder over features of Flickr8k, with and without dropout."""
