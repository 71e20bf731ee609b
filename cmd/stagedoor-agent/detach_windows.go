package main

import (
	"errors"
	"os"
	"os/exec"
)

func inBackground([]string, *os.File, *os.File) (*exec.Cmd, error) {
	return nil, errors.New("that is not supported on Windows: start stagedoor-agent connect in the background")
}
