"""The built-in model: small weights run by llama.cpp in this process, for trials and tests without a provider."""
