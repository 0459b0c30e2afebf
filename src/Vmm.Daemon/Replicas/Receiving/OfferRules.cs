using Vmm.Contracts.Rest;
using Vmm.Daemon.Vms;
using Vmm.Spec;

namespace Vmm.Daemon.Replicas.Receiving;

/// <summary>What a peer may say of a replica and of a point. All of it is a stranger's word.</summary>
internal static class OfferRules
{
    /// <summary>Most disks of a replica.</summary>
    internal const int MostDisks = 64;

    /// <summary>Most bytes of the firmware's variables.</summary>
    internal const int MostVariables = 2 << 20;

    /// <summary>Most characters of a point's spec.</summary>
    internal const int MostSpec = 1 << 20;

    /// <summary>Bytes of the largest disk.</summary>
    internal const ulong MostDiskBytes = 1ul << 46;

    private const int LongestText = 300, MostHours = 24 * 366, MostDays = 3660, MostSeconds = 366 * 86400, HashLetters = 64;

    // A delta has headers and hashes beside what it stores.
    private const ulong DeltaOverhead = 64 << 20;

    /// <summary>Looks at an offer of a replica.</summary>
    /// <exception cref="ApiException">It makes no sense; what is wrong is named.</exception>
    internal static void Require(ReplicaOffer offer)
    {
        if (Problem(offer.Vm, offer.Name, offer.Source, offer.Generations, offer.Disks, offer.Keep) is { } problem)
        {
            throw Refused(problem);
        }
    }

    /// <summary>Looks at an offer of a point.</summary>
    /// <param name="offer">The offer.</param>
    /// <param name="now">The time here.</param>
    /// <returns>The firmware's variables; null: it has none.</returns>
    /// <exception cref="ApiException">It makes no sense; what is wrong is named.</exception>
    internal static byte[]? Require(ReplicaPointOffer offer, DateTimeOffset now)
    {
        string? problem = !IsId(offer.Id) ? "id: expected a UUID"
            : offer.Parent.Length > 0 && !IsId(offer.Parent) ? "parent: expected a UUID, or nothing"
            : !IsId(offer.Generation) ? "generation: expected a UUID"
            : offer.Time > now.AddDays(1) ? "time: it is more than a day from now: are both clocks right?"
            : offer.Quiesced is { } how && !IsText(how) ? "quiesced: expected a line"
            : offer.Spec.Length is 0 or > MostSpec ? $"spec: expected 1 to {MostSpec} characters"
            : offer.Disks is { Count: 0 or > MostDisks } ? $"disks: expected 1 to {MostDisks}"
            : offer.Disks.Select(ProblemOf).FirstOrDefault(each => each is not null)
            ?? (offer.Disks.Select(disk => disk.Name).Distinct(StringComparer.Ordinal).Count() < offer.Disks.Count
                ? "disks: one is named twice" : null);
        if (problem is not null)
        {
            throw Refused(problem);
        }

        return offer.Variables is null ? null : Variables(offer.Variables);
    }

    /// <summary>What is wrong with what is said of a replica; null: nothing.</summary>
    internal static string? Problem(
        string vm, string name, string source, ReplicaGenerations generations, IReadOnlyList<ReplicaDisk> disks, ReplicaKeep keep) =>
        !IsId(vm) ? "vm: expected a UUID"
        : !SpecValidation.IsName(name) ? "name: expected the name of a VM"
        : !IsText(source) || source.Length == 0 ? "source: expected the name of a host"
        : !IsId(generations.Current) || !IsIdOrEmpty(generations.LastCommon) || !IsIdOrEmpty(generations.Older)
            || !IsIdOrEmpty(generations.Oldest) ? "generations: expected UUIDs"
        : keep.AllSeconds is < 0 or > MostSeconds || keep.Hourly is < 0 or > MostHours || keep.Daily is < 0 or > MostDays
            ? $"keep: expected allSeconds up to {MostSeconds}, hourly up to {MostHours}, daily up to {MostDays}"
        : disks.Count is 0 or > MostDisks ? $"disks: expected 1 to {MostDisks}"
        : disks.Any(disk => disk is null || !IsDisk(disk.Name) || disk.Bytes is 0 or > MostDiskBytes)
            ? $"disks: expected names such as disk0, and 1 to {MostDiskBytes} bytes each"
        : disks.Select(disk => disk.Name).Distinct(StringComparer.Ordinal).Count() < disks.Count ? "disks: one is named twice"
        : null;

    /// <summary>Whether a text is a UUID as vmmd writes them.</summary>
    internal static bool IsId(string? text) =>
        Guid.TryParseExact(text, "D", out Guid id) && string.Equals(id.ToString(), text, StringComparison.Ordinal);

    /// <summary>A request that a stranger cannot mean.</summary>
    internal static ApiException Refused(string why) => new(422, "replica-refused", "the replica is not taken", why);

    private static string? ProblemOf(ReplicaPointDisk? disk) =>
        disk is null || !IsDisk(disk.Name) ? "disks: expected names such as disk0"
        : disk.Bytes is 0 or > MostDiskBytes ? $"disks: {disk.Name}: expected 1 to {MostDiskBytes} bytes"
        : disk.Stored is 0 || disk.Stored > disk.Bytes + (disk.Bytes >> 3) + DeltaOverhead
            ? $"disks: {disk.Name}: a delta of {disk.Stored} bytes is none of a disk of {disk.Bytes}"
        : !IsHash(disk.Seal) || !IsHash(disk.Root) ? $"disks: {disk.Name}: expected a seal and a root of {HashLetters} hexadecimal digits"
        : disk.Why is { } why && !IsText(why) ? $"disks: {disk.Name}: why: expected a line"
        : null;

    private static byte[] Variables(string text)
    {
        byte[] content = new byte[MostVariables];
        return text.Length > 0 && Convert.TryFromBase64String(text, content, out int length) && length > 0
            ? content[..length]
            : throw Refused($"variables: expected 1 to {MostVariables} bytes in base64");
    }

    private static bool IsIdOrEmpty(string text) => text.Length == 0 || IsId(text);

    private static bool IsHash(string text) => text.Length == HashLetters && text.All(char.IsAsciiHexDigit);

    private static bool IsDisk(string text) =>
        text.Length is > 4 and <= 7 && text.StartsWith("disk", StringComparison.Ordinal)
        && text.AsSpan(4).IndexOfAnyExceptInRange('0', '9') < 0;

    private static bool IsText(string text) => text.Length <= LongestText && !text.Any(char.IsControl);
}
