//go:build !race && linux

package agent

const raced = false
