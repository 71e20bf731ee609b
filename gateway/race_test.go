//go:build race

package gateway_test

// raced tells that the race detector is on, which makes everything several times
// as slow.
const raced = true
