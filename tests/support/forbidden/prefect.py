raise ImportError("a program of a unit test imports prefect; move the test to tests/service")
