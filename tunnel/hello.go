package tunnel

import (
	"crypto/ed25519"
	"time"
)

// Version is the version of the protocol that this package speaks.
const Version = 1

// Hello is what an agent says first: who it is, and why it may come in.
type Hello struct {
	Version      int               `json:"version"`                   // 1; filled in by Dial
	Task         string            `json:"task"`                      // the task that the agent serves
	Token        string            `json:"token,omitempty"`           // exactly one of Token and Renewal
	Renewal      string            `json:"renewal,omitempty"`         // from an earlier Welcome
	AgentKey     ed25519.PublicKey `json:"agent_key"`                 // the agent across reconnects; filled in by Dial
	Signature    []byte            `json:"-"`                         // proves AgentKey; made by Dial, checked by Accept
	HostKey      []byte            `json:"host_key,omitempty"`        // SSH wire format; opaque here
	Labels       map[string]string `json:"labels,omitempty"`          // at most 32, keys of 64 and values of 256 bytes
	EndToEndOnly bool              `json:"end_to_end_only,omitempty"` // the agent takes no spliced guests
}

// Welcome is what a gateway answers to an agent that it lets in.
type Welcome struct {
	Address  string    `json:"address"`           // host:port for guests' ssh; check with ParseAddress before use
	CA       []byte    `json:"ca,omitempty"`      // SSH wire format of the key that vouches for spliced guests; opaque here
	Deadline time.Time `json:"deadline,omitzero"` // hard end of the task's registration; zero: none
	Renewal  string    `json:"renewal,omitempty"` // credential for coming back
	Now      time.Time `json:"now,omitzero"`      // the gateway's clock
}

// Modes of a stream.
const (
	ModeSpliced  = "spliced"    // the gateway is the SSH client
	ModeEndToEnd = "end-to-end" // the guest is the SSH client, the gateway passes bytes
)

// StreamHeader is what a gateway says first on each stream.
type StreamHeader struct {
	Mode        string `json:"mode"`                  // ModeSpliced or ModeEndToEnd
	Remote      string `json:"remote,omitempty"`      // the guest's address, ip:port
	Certificate []byte `json:"certificate,omitempty"` // spliced: the guest's certificate; opaque here
}
