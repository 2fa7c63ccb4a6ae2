"""The world outside: each client library in one module, foreign errors turned into ours."""
