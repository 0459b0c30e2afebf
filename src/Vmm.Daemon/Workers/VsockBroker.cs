using System.Globalization;
using Vmm.Contracts.Control;
using Vmm.Interop;

namespace Vmm.Daemon.Workers;

/// <summary>Connects a guest to the host's sockets of its vsock, and to no others: a worker asks for a number, never for a path.</summary>
internal sealed class VsockBroker(string path)
{
    private const int MostAtOnce = 8;

    private int _underWay;

    /// <summary>The stream, or null: nobody listens there, or the guest asks for too much at once.</summary>
    internal UnixStream? Connect(VsockDial wish)
    {
        try
        {
            return Interlocked.Increment(ref _underWay) <= MostAtOnce ? UnixStream.Connect(string.Create(CultureInfo.InvariantCulture, $"{path}_{wish.Port}"), out _) : null;
        }
        finally
        {
            Interlocked.Decrement(ref _underWay);
        }
    }
}
