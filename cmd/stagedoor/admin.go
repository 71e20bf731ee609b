package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/user"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/stagedoor/stagedoor/cmd/internal/cli"
	"github.com/stagedoor/stagedoor/gateway"
)

const adminHelp = `

It asks the gateway that runs on this machine, through its admin socket: run it as
the gateway's user or as root. The socket is found by the gateway's configuration
(--config), or in its state directory (--state-dir).`

// adminCommand is a command that asks a running gateway.
type adminCommand struct {
	source source
	json   bool
	out    io.Writer
	ctx    context.Context
}

// newAdminCommand makes cmd one whose run asks the gateway.
func newAdminCommand(cmd *cobra.Command, run func(a *adminCommand, args []string) error) *cobra.Command {
	a := &adminCommand{source: source{File: os.Getenv("STAGEDOOR_CONFIG"), Installed: installedConfig}}
	cmd.Long += adminHelp
	f := cmd.Flags()
	f.SortFlags = false
	f.BoolVar(&a.json, "json", false, "print JSON")
	f.StringVarP(&a.source.File, "config", "c", a.source.File, "configuration `file` of the gateway")
	addConfigFlags(f, func(key string) bool { return key == "state_dir" })
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		a.source.Flags, a.out, a.ctx = cmd.Flags(), cmd.OutOrStdout(), cmd.Context()
		return run(a, args)
	}
	return cmd
}

// socket finds the gateway. A mistake in the configuration does not matter: the
// gateway may well run with the one before.
func (a *adminCommand) socket() (string, error) {
	s := a.source.orInstalled()
	config, r := s.load()
	if r.partial {
		return "", fmt.Errorf("%s cannot be read, or is no configuration: name that of the gateway with --config", s.File)
	}
	path := config.adminSocket()
	if path == "" {
		return "", errors.New("private.admin_socket is off: this gateway takes no commands")
	}
	return path, nil
}

// ask sends a question, nil for none, and reads the answer into v. With --json the
// answer is printed as well, and done is true.
func (a *adminCommand) ask(path string, question, v any) (done bool, err error) {
	socket, err := a.socket()
	if err != nil {
		return false, err
	}
	data, err := a.exchange(socket, path, question)
	if err != nil {
		return false, err
	}
	if a.json {
		return true, printJSON(a.out, json.RawMessage(data))
	}
	return false, json.Unmarshal(data, v)
}

// printJSON prints v for programs, and for people who look over their shoulders.
func printJSON(w io.Writer, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "%s\n", data)
	return err
}

// maxAnswer bounds what is read: some 10,000 guests.
const maxAnswer = 64 << 20

func (a *adminCommand) exchange(socket, path string, question any) ([]byte, error) {
	method, body := http.MethodGet, []byte(nil)
	if question != nil {
		method = http.MethodPost
		var err error
		if body, err = json.Marshal(question); err != nil {
			return nil, err
		}
	}
	r, err := http.NewRequestWithContext(a.ctx, method, "http://gateway"+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: time.Minute}
	resp, err := client.Do(r)
	if err != nil {
		return nil, unreachable(socket, err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		refusal := &gateway.AdminError{Message: resp.Status}
		json.Unmarshal(data, refusal)
		return nil, refusal
	}
	return data, nil
}

// unreachable says why there is no gateway.
func unreachable(socket string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("no gateway answers at %s: start it, or name its configuration with --config", socket)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("this user may not use %s: run as the gateway's user or as root (sudo)", socket)
	}
	return fmt.Errorf("ask the gateway at %s: %w", socket, err)
}

// operator is who runs this command, for the audit stream. The socket's mode is
// what keeps others out.
func operator() string {
	if name := os.Getenv("SUDO_USER"); name != "" {
		return name
	}
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return ""
}

// table prints rows of columns.
func table(w io.Writer, rows [][]string) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		for i := range row {
			row[i] = printable(row[i])
		}
		fmt.Fprintln(t, strings.TrimRight(strings.Join(row, "\t"), "\t"))
	}
	return t.Flush()
}

// printable keeps what strangers called themselves from steering the terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}

// age is how long ago something was.
func age(t time.Time) string { return span(time.Since(t)) }

// span is a duration in its two largest units.
func span(d time.Duration) string {
	switch d = max(0, d).Round(time.Second); {
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm%ds", d/time.Minute, d%time.Minute/time.Second)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	}
	return fmt.Sprintf("%dd%dh", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
}

// whom are the flags that say whom a command is about.
type whom struct {
	request gateway.AdminRequest
	key     string
}

func (w *whom) flags(cmd *cobra.Command, conn bool) {
	f := cmd.Flags()
	f.StringVar(&w.request.Task, "task", "", "a `task`")
	f.StringVar(&w.request.Identity, "identity", "", "guests of this `name`, as stagedoor who shows it: an account of a forge, the comment of a key, …")
	f.StringVar(&w.key, "key", "", "guests with this key: its `fingerprint`, or a file with its public half; also that of the authority of certificates")
	if conn {
		f.StringVar(&w.request.Conn, "conn", "", "`ID` of one connection")
	}
}

// ask is what the flags say.
func (w *whom) ask() (gateway.AdminRequest, error) {
	r := w.request
	n := 0
	for _, s := range []string{r.Task, r.Identity, r.Conn, w.key} {
		if s != "" {
			n++
		}
	}
	if n != 1 {
		return r, cli.UsageError("whom? give one of --key, --identity and --task, or with kick --conn")
	}
	r.By = operator()
	if w.key != "" {
		var err error
		if r.Key, err = keyFingerprint(w.key); err != nil {
			return r, cli.UsageError("--key: %w", err)
		}
	}
	return r, nil
}
