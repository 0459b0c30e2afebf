using Vmm.Cpu;
using Vmm.Spec;

namespace Vmm.Daemon.Moves;

/// <summary>The processor that a guest has seen, as one host tells another: it must not miss a feature when it goes on.</summary>
internal static class CpuOffer
{
    private const int MostNamed = 8;

    /// <summary>What an offer says of it; null: this host does not know its own.</summary>
    /// <param name="spec">The VM's.</param>
    /// <param name="host">What KVM of this host can show.</param>
    internal static string? Write(CpuSpec spec, CpuDescription? host) =>
        host is null ? null : CpuDescriptionJson.Write(spec.Choice.Describe(host));

    /// <summary>What this host lacks; null: nothing, or one of both hosts does not know.</summary>
    /// <param name="offered">What the offer says, a stranger's word.</param>
    /// <param name="host">What KVM of this host can show.</param>
    /// <exception cref="InvalidDataException">The offer says something else.</exception>
    internal static string? Missing(string? offered, CpuDescription? host)
    {
        if (offered is null)
        {
            return null;
        }

        CpuDescription guest = CpuDescriptionJson.Read(offered);
        IReadOnlyList<string> missing = host is null ? [] : guest.Missing(host);
        string more = missing.Count > MostNamed ? $", and {missing.Count - MostNamed} more" : "";
        return missing.Count == 0 ? null : string.Join(", ", missing.Take(MostNamed)) + more;
    }
}
