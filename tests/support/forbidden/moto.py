raise ImportError("a program of a unit test imports moto; move the test to tests/service")
