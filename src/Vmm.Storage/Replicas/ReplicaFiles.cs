using System.Globalization;

namespace Vmm.Storage.Replicas;

/// <summary>Names of the files of a replica.</summary>
internal static class ReplicaFiles
{
    /// <summary>Whose replica it is.</summary>
    internal const string Replica = "replica.json";

    /// <summary>Merges that go on.</summary>
    internal const string Merges = "merge.json";

    /// <summary>Locked by who has the folder.</summary>
    internal const string Lock = ".lock";

    /// <summary>How the folder of a point that comes begins.</summary>
    internal const string IntakePrefix = ".in-";

    /// <summary>What a point that comes is to be, in its folder.</summary>
    internal const string Offer = "point.json";

    /// <summary>How a file ends that is none yet.</summary>
    internal const string PartSuffix = ".part";

    private const int Digits = 6;
    private const string ImageSuffix = ".qcow2", RecordSuffix = ".json", TreeSuffix = ".tree";

    /// <summary>The record of a point: with it the point is there.</summary>
    internal static string RecordOf(int number) => Name(number) + RecordSuffix;

    /// <summary>The image of a disk at a point.</summary>
    internal static string ImageOf(int number, string disk) => disk + "." + Name(number) + ImageSuffix;

    /// <summary>The hashes of a disk at the newest point.</summary>
    internal static string TreeOf(string disk) => disk + TreeSuffix;

    /// <summary>The folder of a point that comes.</summary>
    internal static string IntakeOf(Guid point) => IntakePrefix + point.ToString("D");

    /// <summary>The number of a point's record; 0 for another file.</summary>
    internal static int NumberOfRecord(string file) =>
        file.EndsWith(RecordSuffix, StringComparison.Ordinal) ? NumberOf(file[..^RecordSuffix.Length]) : 0;

    /// <summary>The number in an image's name; 0 for another file.</summary>
    internal static int NumberOfImage(string file)
    {
        string name = file.EndsWith(ImageSuffix, StringComparison.Ordinal) ? file[..^ImageSuffix.Length] : "";
        int dot = name.LastIndexOf('.');
        return dot > 0 ? NumberOf(name[(dot + 1)..]) : 0;
    }

    /// <summary>The disk of an image that has a number.</summary>
    internal static string DiskOfImage(string file)
    {
        string name = file[..^ImageSuffix.Length];
        return name[..name.LastIndexOf('.')];
    }

    /// <summary>Removes a folder with what is in it; one that is not there is no trouble.</summary>
    /// <exception cref="BlockException">The host failed.</exception>
    internal static void RemoveFolder(string folder)
    {
        try
        {
            if (Directory.Exists(folder))
            {
                Directory.Delete(folder, recursive: true);
            }
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw ReplicaError.Failed(folder, "cannot be removed", e);
        }
    }

    private static string Name(int number) => number.ToString(CultureInfo.InvariantCulture).PadLeft(Digits, '0');

    private static int NumberOf(string name) =>
        name.Length >= Digits && name.All(char.IsAsciiDigit) && int.TryParse(name, CultureInfo.InvariantCulture, out int number)
            && string.Equals(name, Name(number), StringComparison.Ordinal) ? number : 0;
}
