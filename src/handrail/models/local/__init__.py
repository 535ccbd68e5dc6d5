"""The built-in model: small weights run by llama.cpp in this process, for a first look and for tests."""
