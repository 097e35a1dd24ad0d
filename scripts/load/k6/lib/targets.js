// targets reads EDGE. It lets through what is on this machine, and what the operator has named twice.
export function targets(edge, allowed) {
  return edge.split(',').map((url) => {
    const parts = /^https?:\/\/([a-z0-9.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?\/?$/i.exec(url);
    if (!parts) {
      throw new Error(`EDGE: "${url}" is not like http://127.0.0.1:8080`);
    }
    const host = parts[1].toLowerCase();
    if (!/^(localhost|127(\.[0-9]{1,3}){3}|\[::1\])$/.test(host) && allowed !== host) {
      throw new Error(`EDGE: ${host} is not this machine. If it is yours to load, set ALLOW_HOST to the same name.`);
    }
    return url.replace(/\/$/, '');
  });
}
