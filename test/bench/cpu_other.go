//go:build unix && !linux

package main

import (
	"errors"
	"time"
)

// cpuTimes is known for Linux only; the report leaves the figures out.
func cpuTimes([]int) (map[int]time.Duration, error) {
	return nil, errors.ErrUnsupported
}
