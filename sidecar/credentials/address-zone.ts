/**
 * How near to this machine an address lies. Pure.
 *
 * Discovery follows URLs that somebody else wrote. The rule that keeps them out of the inner network is one comparison:
 * an address may be at most as near as the servers that the operator configured (egress.ts).
 */
import { BlockList, isIP, isIPv6 } from 'node:net';

/** From far to near. `NEVER`: link-local, cloud metadata, multicast, unspecified: no authorization server lives there. */
export const Zone = { PUBLIC: 0, PRIVATE: 1, LOOPBACK: 2, NEVER: 3 } as const;
export type Zone = (typeof Zone)[keyof typeof Zone];

const loopback = blockList('127.0.0.0/8', '::1/128');
const never = blockList(
  '0.0.0.0/8',
  '169.254.0.0/16',
  '224.0.0.0/4',
  '240.0.0.0/4',
  '100.100.100.200/32', // Alibaba Cloud metadata
  '192.0.0.192/32', // Oracle Cloud metadata
  '168.63.129.16/32', // Azure platform
  '::/128',
  'fe80::/10',
  'fec0::/10',
  'ff00::/8',
  'fd00:ec2::254/128', // AWS metadata
);
/** IANA special-purpose registries (RFC 6890): what is not globally reachable. */
const inner = blockList(
  '10.0.0.0/8',
  '100.64.0.0/10',
  '172.16.0.0/12',
  '192.0.0.0/24',
  '192.0.2.0/24',
  '192.168.0.0/16',
  '198.18.0.0/15',
  '198.51.100.0/24',
  '203.0.113.0/24',
  'fc00::/7',
  '100::/64',
  '2001:db8::/32',
  // Addresses that carry an IPv4 address which a gateway of the network unpacks (NAT64, 6to4, Teredo, compatible).
  '64:ff9b::/96',
  '64:ff9b:1::/48',
  '2002::/16',
  '2001::/32',
  '::/96',
);

/** `address` is an IP address as `dns.lookup` gives it. IPv4-mapped IPv6 counts as the IPv4 address in it. */
export function zoneOf(address: string): Zone {
  if (isIP(address) === 0) return Zone.NEVER;
  const family = isIPv6(address) ? 'ipv6' : 'ipv4';
  if (loopback.check(address, family)) return Zone.LOOPBACK;
  if (never.check(address, family)) return Zone.NEVER;
  return inner.check(address, family) ? Zone.PRIVATE : Zone.PUBLIC;
}

function blockList(...networks: readonly string[]): BlockList {
  const list = new BlockList();
  for (const network of networks) {
    const [address, prefix] = network.split('/') as [string, string];
    list.addSubnet(address, Number(prefix), isIPv6(address) ? 'ipv6' : 'ipv4');
  }
  return list;
}
