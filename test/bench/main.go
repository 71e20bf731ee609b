//go:build unix

// Bench measures Stagedoor beside what a user would otherwise have, in one
// run, on one machine, with the same bytes, and tells what it saw.
//
//	go run ./test/bench
//	go run ./test/bench -rounds 9 -size 1GiB -json result.json
//	go run ./test/bench -contenders sshd,stagedoor -figures echo,connect
//
// The contenders are
//
//	sshd       OpenSSH's sshd, called directly, with the cipher that ssh negotiates by default
//	sshd-gcm   the same with aes128-gcm@openssh.com
//	stagedoor  ssh task@gateway: stagedoor gateway and stagedoor-agent, spliced
//	reverse    ssh -R from the host to a jump sshd, ssh -J from the guest
//
// (and, when asked for, stagedoor-gcm, with the cipher of sshd-gcm) and the figures
//
//	bulk       MiB/s of a command's output and input, and what they cost in CPU time
//	echo       one byte to cat and back, over pipes and over a raw terminal,
//	           back to back and paced at one a millisecond
//	connect    the real ssh running true, from its start to its exit
//
// Every server is a child process on 127.0.0.1 with keys and files in a
// temporary directory, and is ended when the program ends, however it ends.
// Contenders take turns within each round, so that what else happens on the
// machine strikes them alike. The key exchange, the host key and the guest's
// key are of the same kind for all: see -kex. Bulk and connect are driven with
// the machine's own ssh, echo with one Go client that is held to the cipher
// that ssh negotiated, because only there can a microsecond be told from the
// cost of starting a process.
//
// A ratio is the median of the ratios to sshd in the same round.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == hostCommand {
		if err := hostSide(os.Args[2:], os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "bench: host:", err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	// Caught and dropped: with "| head" the table cannot be written, and that is
	// an error like others, after which the servers are ended. To ignore the
	// signal would make every child ignore it too.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// options are the command line.
type options struct {
	size       byteSize
	rounds     int
	echoes     int
	connects   int
	contenders string
	figures    string
	kex        string
	json       string
	bin        string
	keep       bool
}

func parseOptions(args []string, stderr io.Writer) (*options, error) {
	o := &options{size: 256 << 20}
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.Var(&o.size, "size", "`bytes` of each bulk transfer; K, M, G and KiB, MiB, GiB are powers of 1024")
	fs.IntVar(&o.rounds, "rounds", 5, "how often each contender is measured")
	fs.IntVar(&o.echoes, "echoes", 1000, "keystrokes of each echo measurement")
	fs.IntVar(&o.connects, "connects", 5, "runs of `ssh TASK true` in a round")
	fs.StringVar(&o.contenders, "contenders", usualContenders, "`names` of those to measure")
	fs.StringVar(&o.figures, "figures", strings.Join(measureNames(), ","), "`names` of what to measure")
	fs.StringVar(&o.kex, "kex", "curve25519-sha256", "key exchange of every contender")
	fs.StringVar(&o.json, "json", "", "also write the result to `file`")
	fs.StringVar(&o.bin, "bin", "", "`directory` with stagedoor and stagedoor-agent; default: build them")
	fs.BoolVar(&o.keep, "keep", false, "leave the temporary directory with its logs and say where it is")
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	return o, o.validate(fs.NArg())
}

func (o *options) validate(extra int) error {
	if extra > 0 {
		return errors.New("flags only: the commands to run are fixed")
	}
	if o.rounds < 1 || o.echoes < 1 || o.connects < 1 || o.size < 1 {
		return errors.New("-rounds, -echoes, -connects and -size must be at least 1")
	}
	return nil
}

// run is the program: start everybody, warm up, measure, report.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o, err := parseOptions(args, stderr)
	if err != nil {
		return err
	}
	contenders, err := pick(allContenders(), o.contenders, contender.name)
	if err != nil {
		return err
	}
	measures, err := pick(allMeasures(), o.figures, func(m measure) string { return m.name })
	if err != nil {
		return err
	}
	l, err := newLab(ctx, o, stderr)
	if err != nil {
		return err
	}
	defer l.close()

	entrants, err := l.enter(ctx, contenders)
	if err != nil {
		return err
	}
	samples, err := measureAll(ctx, l, entrants, measures, o)
	if err != nil {
		return err
	}
	r := newReport(l, o, entrants, samples)
	if o.json != "" {
		if err := r.writeJSON(o.json); err != nil {
			return err
		}
	}
	return r.writeTable(stdout)
}

// pick returns the items of all that the comma-separated names ask for, in
// all's order, and refuses a name that none has.
func pick[T any](all []T, names string, name func(T) string) ([]T, error) {
	known := make([]string, len(all))
	for i, item := range all {
		known[i] = name(item)
	}
	wanted := strings.Split(names, ",")
	for _, w := range wanted {
		if !slices.Contains(known, w) {
			return nil, fmt.Errorf("%q is unknown: choose from %s", w, strings.Join(known, ", "))
		}
	}
	var picked []T
	for i, item := range all {
		if slices.Contains(wanted, known[i]) {
			picked = append(picked, item)
		}
	}
	return picked, nil
}
