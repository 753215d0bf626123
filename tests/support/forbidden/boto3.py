raise ImportError("a program of a unit test imports boto3; move the test to tests/service")
