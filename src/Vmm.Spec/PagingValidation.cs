using Vmm.Memory;

namespace Vmm.Spec;

/// <summary>The rules of a VM whose memory need not be resident.</summary>
public static class PagingValidation
{
    private const string Field = "memory.resident";

    /// <summary>
    /// What of a spec lets somebody have guest memory who does not ask the pager for it, and why that does not work beside a resident
    /// limit: the pager would take pages that are in use, or would not hear of the fault. This is the one place that knows.
    /// </summary>
    /// <returns>The field, and the reason.</returns>
    public static IEnumerable<(string Path, string Reason)> Unpaged(VmSpec spec)
    {
        ArgumentNullException.ThrowIfNull(spec);
        for (int i = 0; i < (spec.Numa?.Vnodes.Count ?? 0); i++)
        {
            if (spec.Numa!.Vnodes[i].PageSize > ByteSize.BytesPerPage)
            {
                yield return ($"numa.vnodes[{i}].pageSize", "huge pages come from a pool of the host and are not paged out");
            }
        }

        for (int i = 0; i < spec.Nets.Count; i++)
        {
            if (Unpaged(spec.Nets[i]) is { } reason)
            {
                yield return ($"nets[{i}].vhost", reason);
            }
        }

        for (int i = 0; i < spec.Shares.Count; i++)
        {
            yield return ($"shares[{i}]", "virtiofsd maps the guest's memory itself (vhost-user) and does not hear of the pager");
        }

        for (int i = 0; i < spec.Devices.Count; i++)
        {
            if (spec.Devices[i].BackEnd is not null)
            {
                yield return ($"devices[{i}]",
                    "the program behind it maps the guest's memory itself (vhost-user) and does not hear of the pager");
            }
        }
    }

    /// <summary>Why a network device cannot be had beside a resident limit; null when it can.</summary>
    public static string? Unpaged(NetSpec net) => net.Vhost == VhostUse.On
        ? "the host's kernel (vhost-net) reads and writes the guest's memory past the pager: say vhost: auto or off"
        : null;

    /// <summary>
    /// The network device as a VM has it: where <c>vhost: auto</c> leaves the choice, one with a resident limit does without vhost-net.
    /// </summary>
    public static NetSpec Paged(VmSpec spec, NetSpec net) => Paged(spec.Paging is not null, net);

    /// <summary>The same, for a VM whose memory is paged, or is not.</summary>
    public static NetSpec Paged(bool isPaged, NetSpec net) =>
        isPaged && net.Vhost == VhostUse.Auto ? net with { Vhost = VhostUse.Off } : net;

    internal static void Check(VmSpec spec, PagingSpec paging, SpecComplaints check)
    {
        if (paging.Resident is not { } resident)
        {
            check.Require(false, Field, "is missing: minResident, swap and weight are about memory beyond a resident limit");
            return;
        }

        ByteSize most = spec.MostMemory, limit = resident.In(spec.Memory);
        string said = resident.Size is null
            ? $"{resident.ToString()} of {spec.Memory.ToString()} is {limit.ToString()}"
            : resident.ToString();
        check.Require(resident.Size is null || resident.Size.Value % ByteSize.BytesPerPage == 0, Field,
            $"{resident.ToString()} is not a multiple of 4KiB");
        check.Require(
            resident.Size is not null || resident.Percent is >= 1 and <= 100, Field, $"{resident.ToString()}, expected 1% to 100%");
        check.Require(limit >= PagingSpec.LeastResident, Field, $"{said}, expected at least {PagingSpec.LeastResident.ToString()}");
        check.Require(limit <= most, Field, $"{said}, more than the VM's {most.ToString()}");
        CheckLeast(spec, paging, limit, check);
        check.Require(paging.Swap is not "", "memory.swap", "is empty: leave it out or name a folder");
        foreach ((string path, string reason) in Unpaged(spec))
        {
            check.Require(false, path, $"does not go with {Field}: {reason}");
        }
    }

    private static void CheckLeast(VmSpec spec, PagingSpec paging, ByteSize limit, SpecComplaints check)
    {
        if (paging.MinResident is not { } least)
        {
            return;
        }

        const string Least = "memory.minResident";
        ByteSize bytes = least.In(spec.Memory);
        string said = least.Size is null
            ? $"{least.ToString()} of {spec.Memory.ToString()} is {bytes.ToString()}"
            : least.ToString();
        check.Require(least.Size is null || least.Size.Value % ByteSize.BytesPerPage == 0, Least,
            $"{least.ToString()} is not a multiple of 4KiB");
        check.Require(least.Size is not null || least.Percent is >= 1 and <= 100, Least, $"{least.ToString()}, expected 1% to 100%");
        check.Require(bytes >= PagingSpec.LeastResident, Least, $"{said}, expected at least {PagingSpec.LeastResident.ToString()}");
        check.Require(bytes <= limit, Least, $"{said}, more than the resident limit of {limit.ToString()}");
    }
}
