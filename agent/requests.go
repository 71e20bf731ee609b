package agent

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/ssh"
)

// The payloads of the requests on a session are read here, and in x11.go. A payload that is too short, goes on behind its end, or
// has a NUL in a text, which no program could be given, is an error: the request fails, and nothing else happens. sshd hangs up.

// errTrailing says that a payload goes on where it should have ended.
var errTrailing = errors.New("payload has trailing data")

// errNUL says that a text cannot be one.
var errNUL = errors.New("NUL in a text")

// terminalRequest is the payload of a pty-req, RFC 4254 §6.2.
type terminalRequest struct {
	Term                         string
	Columns, Rows, Width, Height uint32
	Modes                        []byte // encoded, §8
}

func parseTerminalRequest(payload []byte) (r terminalRequest, err error) {
	if err := ssh.Unmarshal(payload, &r); err != nil {
		return terminalRequest{}, err
	}
	if strings.ContainsRune(r.Term, 0) {
		return terminalRequest{}, errNUL
	}
	return r, nil
}

// parseEnv reads an env, RFC 4254 §6.4.
func parseEnv(payload []byte) (name, value string, err error) {
	var r struct{ Name, Value string }
	err = ssh.Unmarshal(payload, &r)
	return r.Name, r.Value, err
}

// parseText reads the payload of exec, subsystem and signal, RFC 4254 §6.5 and §6.9: one text.
func parseText(payload []byte) (string, error) {
	var r struct{ Text string }
	if err := ssh.Unmarshal(payload, &r); err != nil {
		return "", err
	}
	if strings.ContainsRune(r.Text, 0) {
		return "", errNUL
	}
	return r.Text, nil
}

// parseNothing reads the payload of a request that has none.
func parseNothing(payload []byte) error {
	if len(payload) > 0 {
		return errTrailing
	}
	return nil
}

// parseWindowChange reads a window-change, RFC 4254 §6.7.
func parseWindowChange(payload []byte) (size winsize, err error) {
	err = ssh.Unmarshal(payload, &size)
	return size, err
}

// parseBreak reads a break, RFC 4335 §3: how long it is, in milliseconds.
func parseBreak(payload []byte) (length uint32, err error) {
	var r struct{ Length uint32 }
	if err := ssh.Unmarshal(payload, &r); err != nil {
		return 0, fmt.Errorf("break: %w", err)
	}
	return r.Length, nil
}
