package agent

import "time"

// Limits bound what guests can make a host hold. Zero values mean the defaults.
type Limits struct {
	Handshake             time.Duration // until a guest has signed in: 30 s
	AuthTries             int           // failed attempts to sign in on one connection: 6
	Connections           int           // open at once: 256
	ChannelsPerConnection int           // open at once: 128
	EnvVariables          int           // that one session may set: 128
	EnvBytes              int           // that they may hold together: 64 KiB
}

// withDefaults returns l with every zero value replaced.
func (l Limits) withDefaults() Limits {
	orDuration(&l.Handshake, 30*time.Second)
	orInt(&l.AuthTries, 6)
	orInt(&l.Connections, 256)
	orInt(&l.ChannelsPerConnection, 128)
	orInt(&l.EnvVariables, 128)
	orInt(&l.EnvBytes, 64<<10)
	return l
}

func orInt(v *int, fallback int) {
	if *v <= 0 {
		*v = fallback
	}
}

func orDuration(v *time.Duration, fallback time.Duration) {
	if *v <= 0 {
		*v = fallback
	}
}
