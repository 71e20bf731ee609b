package e2e

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/stagedoor/stagedoor/internal/testenv"
)

// searchMemory counts a text in the memory of a process that runs on meanwhile:
// in all pages that it can write to.
func searchMemory(t *testing.T, pid int, text []byte) (found int) {
	t.Helper()
	memory, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if errors.Is(err, fs.ErrPermission) {
		testenv.NeedRoot(t)
	}
	mustDo(t, err)
	defer memory.Close()
	pages, err := os.Open(fmt.Sprintf("/proc/%d/pagemap", pid))
	mustDo(t, err)
	defer pages.Close()
	buf := make([]byte, 0, searchPiece+len(text))
	for _, m := range mappings(t, pid) {
		for _, filled := range m.filled(t, pages) {
			found += filled.count(memory, text, buf)
		}
	}
	return found
}

// mapping is a range of addresses.
type mapping struct{ start, end int64 }

// mappings reads from smaps those that may be written to and have pages at all.
// The race detector's reach over terabytes without any.
func mappings(t *testing.T, pid int) (all []mapping) {
	t.Helper()
	smaps, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps", pid))
	mustDo(t, err)
	var m mapping
	var writable bool
	for line := range strings.Lines(string(smaps)) {
		var start, end uint64
		var access string
		if n, _ := fmt.Sscanf(line, "%x-%x %s", &start, &end, &access); n == 3 {
			m, writable = mapping{int64(start), int64(end)}, strings.HasPrefix(access, "rw")
		}
		name, value, _ := strings.Cut(line, ":")
		if (name == "Rss" || name == "Swap") && writable && strings.TrimSpace(value) != "0 kB" {
			all = append(all, m)
			writable = false // listed
		}
	}
	return all
}

// filled returns the parts of a mapping whose pages exist, in memory or swapped
// out: the top bits of an entry of pagemap, proc_pid_pagemap(5). To read a page
// that does not exist would make it.
func (m mapping) filled(t *testing.T, pagemap io.ReaderAt) (parts []mapping) {
	t.Helper()
	size := int64(os.Getpagesize())
	entries := make([]byte, (m.end-m.start)/size*8)
	if _, err := pagemap.ReadAt(entries, m.start/size*8); err != nil {
		t.Fatal(err)
	}
	for i := range int64(len(entries) / 8) {
		at := m.start + i*size
		switch {
		case binary.NativeEndian.Uint64(entries[i*8:])>>62 == 0:
		case len(parts) > 0 && parts[len(parts)-1].end == at:
			parts[len(parts)-1].end += size
		default:
			parts = append(parts, mapping{at, at + size})
		}
	}
	return parts
}

// searchPiece is how much is read at a time.
const searchPiece = 1 << 20

// count reads a mapping piece by piece into buf, with the end of each in front of
// the next.
func (m mapping) count(memory io.ReaderAt, text, buf []byte) (found int) {
	buf = buf[:0]
	for at := m.start; at < m.end; at += searchPiece {
		keep := buf[max(0, len(buf)-len(text)+1):]
		buf = append(buf[:0], keep...)
		n, _ := memory.ReadAt(buf[len(buf):len(buf)+int(min(searchPiece, m.end-at))], at) // what was unmapped since reads as nothing
		buf = buf[:len(buf)+n]
		found += bytes.Count(buf, text)
	}
	return found
}
