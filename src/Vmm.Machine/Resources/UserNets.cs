using Vmm.Devices.Virtio.Net;
using Vmm.HostNet;
using Vmm.Interop;
using Vmm.Spec;

namespace Vmm.Machine.Resources;

/// <summary>User-mode networks from their spec.</summary>
internal static class UserNets
{
    /// <summary>Starts its program with this process's rights, and again whenever it ends.</summary>
    /// <exception cref="HostNetException">It cannot be started.</exception>
    internal static StreamNetBackend Start(int index, NetSpec net, Action<string>? note)
    {
        PasstProcess passt = new(net);
        return new StreamNetBackend(passt.Start(), new StreamNetOptions
        {
            Name = $"net{index}",
            Note = note,
            Connect = _ => Task.FromResult(Restart(passt)),
        });
    }

    /// <summary>Over a socket that somebody else made, who is asked for another one when its program has ended.</summary>
    /// <param name="index">Number of the device.</param>
    /// <param name="socket">The socket; owned from here on.</param>
    /// <param name="note">Takes remarks; null when nobody reads them.</param>
    /// <param name="dial">Asks for another connection by the name of what is wanted; null: the link stays down.</param>
    internal static StreamNetBackend Passed(int index, FileDescriptorHandle socket, Action<string>? note,
        Func<string, CancellationToken, Task<FileDescriptorHandle>>? dial) => new(socket, new StreamNetOptions
        {
            Name = $"net{index}",
            Note = note,
            Connect = dial is null ? null : cancellation => dial(NetSpec.UserSource, cancellation),
        });

    private static FileDescriptorHandle Restart(PasstProcess passt)
    {
        try
        {
            return passt.Start();
        }
        catch (HostNetException cause)
        {
            throw new IOException(cause.Message, cause);
        }
    }
}
