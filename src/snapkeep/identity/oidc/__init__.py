"""OpenID Connect: an identity provider proves who somebody is. The exchange is the server's alone."""
