package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// A cluster is what up made and every other command finds again.
type cluster struct {
	settings
	bin binaries
	api *apiClient
}

// settings are the choices of one cluster, kept in its state directory.
type settings struct {
	Nodes      int    `json:"nodes"`
	Devices    string `json:"devices"` // NAME=COUNT,... on each node
	Binaries   string `json:"binaries"`
	Kubernetes string `json:"kubernetes"`
}

func (s settings) nodes() []node {
	var all []node
	for i := 1; i <= s.Nodes; i++ {
		all = append(all, node{fmt.Sprintf("node%d", i), i})
	}
	return all
}

var errNoCluster = errors.New("there is no cluster on this machine; `go run ./test/cluster up` starts one")

// open finds the cluster of this machine, healthy or not. It runs the binaries
// that it was started with, whatever the checkout holds by now.
func open() (*cluster, error) {
	data, err := os.ReadFile(configFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errNoCluster
	}
	if err != nil {
		return nil, err
	}
	c := &cluster{}
	if err := json.Unmarshal(data, &c.settings); err != nil {
		return nil, fmt.Errorf("%s: %w; run down, then up", configFile, err)
	}
	c.bin = binaries{dir: c.Binaries, kubernetes: c.Kubernetes}
	if c.api, err = newAPIClient(); err != nil {
		return nil, fmt.Errorf("certificates: %w; run down, then up", err)
	}
	return c, nil
}

// openLocked is open for commands that change the cluster.
func openLocked() (*cluster, func(), error) {
	cache, err := cacheDir()
	if err != nil {
		return nil, nil, err
	}
	unlock, err := lock(cache)
	if err != nil {
		return nil, nil, err
	}
	c, err := open()
	if err != nil {
		unlock()
		return nil, nil, err
	}
	return c, unlock, nil
}

// save writes the settings; the certificates must exist already, so that open
// finds either nothing or all it needs.
func (c *cluster) save() error {
	data, err := json.MarshalIndent(c.settings, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(configFile, append(data, '\n'), 0o644)
}
