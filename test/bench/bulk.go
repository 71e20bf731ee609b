//go:build unix

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"
)

// hostCommand makes this program the far end of a bulk transfer.
const hostCommand = "host"

// A direction of bulk, as the guest sees it.
type direction string

const (
	download direction = "download"
	upload   direction = "upload"
)

// Both ends first greet, so that what is timed begins when the session is up,
// and the one that takes the bytes says when it has them all. The host's end
// then lives until its input ends, so that every process is still there when
// its CPU time is read.
const (
	greeting = "ready\n"
	start    = "go\n"
	receipt  = "done\n"
)

// hostSide runs on the host: "download N VERIFY" or "upload N VERIFY".
func hostSide(args []string, stdin io.Reader, stdout io.Writer) error {
	if len(args) != 3 {
		return errors.New("want direction, size and whether to verify")
	}
	size, err := strconv.ParseInt(args[1], 10, 64)
	if err != nil {
		return err
	}
	if _, err := io.WriteString(stdout, greeting); err != nil {
		return err
	}
	if err := expect(stdin, start); err != nil {
		return err
	}
	switch direction(args[0]) {
	case download:
		err = produce(stdout, size)
	case upload:
		if err = consume(stdin, size, args[2] == "true"); err == nil {
			_, err = io.WriteString(stdout, receipt)
		}
	default:
		err = fmt.Errorf("no direction %q", args[0])
	}
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, stdin)
	return err
}

// A transfer that was made: how long it took, and the CPU time that each part
// spent on it. What is unknown or has no part is NaN.
type transferred struct {
	took                  time.Duration
	client, gateway, host float64 // seconds
}

// allCPU is the CPU time of all parts that there are.
func (t transferred) allCPU() float64 {
	all := t.client + t.host
	if !math.IsNaN(t.gateway) {
		all += t.gateway
	}
	return all
}

// transfer moves size bytes between the guest's ssh and a command on the host.
func (e *entrant) transfer(ctx context.Context, l *lab, d direction, size int64, verify bool) (t transferred, err error) {
	cmd := e.sshCommand(ctx, nil, shellQuote(l.self), hostCommand, string(d),
		strconv.FormatInt(size, 10), strconv.FormatBool(verify))
	stdin, stdout, err := startPiped(cmd)
	if err != nil {
		return t, err
	}
	defer stdin.Close()
	defer stdout.Close()
	t, err = e.exchange(stdin, stdout, cmd.Process.Pid, d, size, verify)
	stdin.Close()
	if err = errors.Join(err, cmd.Wait()); err != nil {
		err = fmt.Errorf("%s: %w: %s", d, errors.Join(ctx.Err(), err), logTail(e.log.Name()))
	}
	return t, err
}

// exchange is the guest's end of hostSide.
func (e *entrant) exchange(stdin io.Writer, stdout io.Reader, pid int, d direction, size int64, verify bool) (t transferred, err error) {
	if err := expect(stdout, greeting); err != nil {
		return t, err
	}
	before, err := e.readCPU(pid)
	if err != nil {
		return t, err
	}
	began := time.Now()
	if _, err := io.WriteString(stdin, start); err != nil {
		return t, err
	}
	if d == download {
		err = consume(stdout, size, verify)
	} else if err = produce(stdin, size); err == nil {
		err = expect(stdout, receipt)
	}
	t.took = time.Since(began)
	if err != nil {
		return t, err
	}
	after, err := e.readCPU(pid)
	t.client = after.client.since(before.client)
	t.gateway = after.gateway.since(before.gateway)
	t.host = after.host.since(before.host)
	return t, err
}

// usage is the CPU time of processes by ID; nil: unknown or no process.
type usage map[int]time.Duration

// since returns the seconds spent after an earlier reading.
func (u usage) since(before usage) float64 {
	if u == nil || before == nil {
		return math.NaN()
	}
	var spent time.Duration
	for pid, t := range u {
		spent += t - before[pid]
	}
	return spent.Seconds()
}

// A partUsage is the usage of each part of a route.
type partUsage struct{ client, gateway, host usage }

func (e *entrant) readCPU(client int) (u partUsage, err error) {
	for _, part := range []struct {
		roots []int
		usage *usage
	}{
		{[]int{client}, &u.client},
		{pids(e.gateway), &u.gateway},
		{pids(e.host), &u.host},
	} {
		if len(part.roots) == 0 {
			continue
		}
		*part.usage, err = cpuTimes(part.roots)
		if err != nil && !errors.Is(err, errors.ErrUnsupported) {
			return u, err
		}
	}
	return u, nil
}

func pids(servers []*process) []int {
	var ids []int
	for _, p := range servers {
		ids = append(ids, p.cmd.Process.Pid)
	}
	return ids
}

// startPiped starts cmd with pipes that block. Go's own would be polled, which
// costs the bench CPU time that the contenders need.
func startPiped(cmd *exec.Cmd) (stdin, stdout *os.File, err error) {
	childIn, stdin, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	defer childIn.Close()
	stdout, childOut, err := os.Pipe()
	if err != nil {
		stdin.Close()
		return nil, nil, err
	}
	defer childOut.Close()
	stdin.Fd() // sets them to block
	stdout.Fd()
	cmd.Stdin, cmd.Stdout = childIn, childOut
	if err := cmd.Start(); err != nil {
		stdin.Close()
		stdout.Close()
		return nil, nil, err
	}
	return stdin, stdout, nil
}

// expect reads exactly the words.
func expect(r io.Reader, words string) error {
	buf := make([]byte, len(words))
	if _, err := io.ReadFull(r, buf); err != nil {
		return fmt.Errorf("wait for %q: %w", words, err)
	}
	if string(buf) != words {
		return fmt.Errorf("got %q instead of %q", buf, words)
	}
	return nil
}

const blockSize = 256 << 10

// block returns what bulk is made of, over and over: bytes that cannot be
// compressed, the same in every process.
var block = sync.OnceValue(func() []byte {
	b := make([]byte, blockSize)
	_, _ = rand.NewChaCha8([32]byte{}).Read(b) // cannot fail
	return b
})

// produce writes size bytes.
func produce(w io.Writer, size int64) error {
	for size > 0 {
		n, err := w.Write(block()[:min(size, blockSize)])
		if err != nil {
			return err
		}
		size -= int64(n)
	}
	return nil
}

// consume reads size bytes, and with verify compares them with what produce
// wrote.
func consume(r io.Reader, size int64, verify bool) error {
	if verify {
		r = &comparing{r: r}
	}
	buf := make([]byte, blockSize)
	for got := int64(0); got < size; {
		n, err := r.Read(buf[:min(size-got, blockSize)])
		got += int64(n)
		if err != nil && got < size {
			return fmt.Errorf("got %d of %d bytes: %w", got, size, noEOF(err))
		}
	}
	return nil
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// comparing is a reader that fails at the first byte that produce did not write.
type comparing struct {
	r  io.Reader
	at int64
}

func (c *comparing) Read(p []byte) (int, error) {
	from := c.at % blockSize
	n, err := c.r.Read(p[:min(int64(len(p)), blockSize-from)])
	if !bytes.Equal(p[:n], block()[from:from+int64(n)]) {
		return n, fmt.Errorf("wrong bytes after %d", c.at)
	}
	c.at += int64(n)
	return n, err
}

// shellQuote quotes a word for the shell on the host.
func shellQuote(word string) string {
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}
