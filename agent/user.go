package agent

import (
	"os"
	"os/user"
	"strconv"
)

// account returns the name and home directory of the user whom the agent runs as; in a container a uid may have neither.
func account() (name, home string) {
	name, home = strconv.Itoa(os.Getuid()), "/"
	if u, err := user.Current(); err == nil {
		name, home = orElse(u.Username, name), orElse(u.HomeDir, home)
	}
	return name, home
}

func orElse(s, fallback string) string {
	if s == "" {
		return fallback
	}
	return s
}
