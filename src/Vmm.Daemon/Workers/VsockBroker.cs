using System.Globalization;
using Vmm.Contracts.Control;
using Vmm.Interop;

namespace Vmm.Daemon.Workers;

/// <summary>Connects a guest to the host's sockets of its vsock, and to no others: a worker asks for a number, never for a path.</summary>
internal sealed class VsockBroker(string path)
{
    /// <summary>The stream, or null: nobody listens there.</summary>
    internal UnixStream? Connect(VsockDial wish) => UnixStream.Connect(string.Create(CultureInfo.InvariantCulture, $"{path}_{wish.Port}"), out _);
}
