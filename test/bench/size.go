//go:build unix

package main

import (
	"fmt"
	"strconv"
	"strings"
)

// A byteSize is a flag that takes "262144", "256K" or "256KiB".
type byteSize int64

// String returns the size in the largest unit that leaves no remainder.
func (s *byteSize) String() string {
	for _, u := range []struct {
		size byteSize
		name string
	}{{1 << 30, "GiB"}, {1 << 20, "MiB"}, {1 << 10, "KiB"}} {
		if *s != 0 && *s%u.size == 0 {
			return fmt.Sprintf("%d%s", *s/u.size, u.name)
		}
	}
	return strconv.FormatInt(int64(*s), 10)
}

// Set implements flag.Value.
func (s *byteSize) Set(text string) error {
	number := strings.TrimSuffix(strings.TrimSuffix(strings.ToUpper(text), "B"), "I")
	shift := 0
	if n := len(number); n > 0 {
		if i := strings.IndexByte("KMG", number[n-1]); i >= 0 {
			shift = 10 * (i + 1)
			number = number[:n-1]
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 0 || n > (1<<62)>>shift {
		return fmt.Errorf("%q is no size: write 1048576, 256M or 1GiB", text)
	}
	*s = byteSize(n << shift)
	return nil
}
