//go:build unix

package agent

import (
	"bufio"
	"io"
	"os"
	"path"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// loginShell returns the shell of the user whom the agent runs as: that of the passwd entry, else bash, else sh. An entry that
// keeps the user from logging in (nologin, false), as service users have, is for other doors than this one.
func loginShell() string {
	candidates := []string{passwdShell(), "/bin/bash", "/usr/bin/bash", "/usr/local/bin/bash"}
	for _, shell := range candidates {
		if path.IsAbs(shell) && !keepsOut(shell) && unix.Access(shell, unix.X_OK) == nil {
			return shell
		}
	}
	return "/bin/sh"
}

func keepsOut(shell string) bool {
	base := path.Base(shell)
	return base == "nologin" || base == "false" || base == "true"
}

// passwdShell reads the user's entry. macOS keeps its users elsewhere and sets SHELL by it.
func passwdShell() string {
	if runtime.GOOS == "darwin" {
		return os.Getenv("SHELL")
	}
	f, err := os.Open("/etc/passwd")
	if err != nil {
		return ""
	}
	defer f.Close()
	return shellOf(f, os.Getuid())
}

// shellOf finds the shell of a user in the format of passwd(5).
func shellOf(passwd io.Reader, uid int) string {
	for lines := bufio.NewScanner(passwd); lines.Scan(); {
		fields := strings.Split(lines.Text(), ":")
		if len(fields) == 7 && fields[2] == strconv.Itoa(uid) {
			return fields[6]
		}
	}
	return ""
}
