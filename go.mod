module github.com/ffpod/ffpod

go 1.26
