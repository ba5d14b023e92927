"""HTTP: routes, problems and the middleware around them."""
