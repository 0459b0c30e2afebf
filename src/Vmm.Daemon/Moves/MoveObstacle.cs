using Vmm.Spec;

namespace Vmm.Daemon.Moves;

/// <summary>What of a VM is of one host only.</summary>
internal static class MoveObstacle
{
    /// <summary>Names it; null: nothing of the spec is.</summary>
    internal static string? Of(VmSpec spec)
    {
        if (spec.Vsock is { } vsock)
        {
            return $"{spec.Name} has a vsock, whose other ends are programs of its host ({vsock.Path}): take it out of the spec";
        }

        if (spec.Shares.Count > 0)
        {
            return $"{spec.Name} shares the folder {spec.Shares[0].Path} of its host: take it out of the spec";
        }

        if (spec.Boot.IsFirmware)
        {
            return $"{spec.Name} has firmware whose variables its host keeps, which do not go along yet: save and restore it there";
        }

        if (spec.Paging is not null)
        {
            return $"{spec.Name} has a resident limit (memory.resident): what is out of its memory does not go along yet";
        }

        if (spec.Devices.FirstOrDefault(device => device.BackEnd is not null || device.Files.Any()) is { } device)
        {
            return $"{spec.Name} has a device that a program or file of its host is behind ({device.Kind}): take it out";
        }

        return spec.Nets.Any(net => net.User is not null)
            ? $"{spec.Name} has a user-mode network, whose connections are a program's of its host: give it a network or a bridge"
            : null;
    }
}
