module github.com/elector-io/elector/test/bench/injectors/subject

go 1.26.0

require golang.org/x/sys v0.21.0
