#!/bin/sh
# network.sh up|down NAME: two network namespaces, without a way to anywhere else.
#
# NAME-vpc is the region: the bridge br0 is the VPC 172.31.0.0/16 with the router .1, AWS's API and a registry on .2, and
# the metadata service. NAME-home is where the user sits, at 203.0.113.7. Public addresses 198.51.100.x are translated to
# private ones (map public); the sets of the table groups hold what security groups admit.
set -eu
action=$1 vpc=$2-vpc home=$2-home

down() {
    ip netns del "$vpc" 2>/dev/null || true
    ip netns del "$home" 2>/dev/null || true
}

up() {
    ip netns add "$vpc"
    ip netns add "$home"
    ip -n "$vpc" link set lo up
    ip -n "$home" link set lo up
    ip -n "$vpc" link add br0 type bridge
    ip -n "$vpc" link set br0 up
    for address in 172.31.0.1/16 172.31.0.2/16 169.254.169.254/32; do
        ip -n "$vpc" addr add "$address" dev br0
    done
    ip link add to-vpc netns "$home" type veth peer name to-home netns "$vpc"
    ip -n "$vpc" addr add 10.9.9.1/30 dev to-home
    ip -n "$vpc" link set to-home up
    ip -n "$home" addr add 10.9.9.2/30 dev to-vpc
    ip -n "$home" link set to-vpc up
    ip -n "$home" addr add 203.0.113.7/32 dev lo
    ip -n "$home" addr add 203.0.113.99/32 dev lo # a stranger's
    ip -n "$home" route add default via 10.9.9.1 src 203.0.113.7
    ip -n "$vpc" route add 203.0.113.0/24 via 10.9.9.2
    ip netns exec "$vpc" sysctl -qw net.ipv4.ip_forward=1
    ip netns exec "$vpc" nft -f - <<'NFT'
table ip nat {
  map public { type ipv4_addr : ipv4_addr; }
  chain pre { type nat hook prerouting priority -100; dnat to ip daddr map @public; }
}
table bridge groups {
  set machines { type ipv4_addr; }
  set callers { type ipv4_addr . ipv4_addr . inet_service; flags interval; }
  set peers { type ipv4_addr . ipv4_addr; }
  chain post {
    type filter hook postrouting priority 0; policy accept;
    ether type ip ip daddr @machines tcp flags & (syn|ack) == syn jump check
  }
  chain check {
    ip saddr . ip daddr . tcp dport @callers accept
    ip saddr . ip daddr @peers accept
    drop
  }
}
NFT
}

case $action in
    up) up || { down && exit 1; } ;;
    down) down ;;
esac
