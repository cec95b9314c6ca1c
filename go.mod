module github.com/elector-io/elector

go 1.26.0
