//go:build !race

package main

// stormClients is how many clients each storm has at most.
const stormClients = 150
