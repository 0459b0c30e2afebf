using YamlDotNet.Core;

namespace Vmm.Spec;

/// <summary>Reads a spec file and reports everything that is wrong with it at once, each with line, column and field. Work, memory and what
/// is reported are bounded by the length of the text, whatever it says: a client of the daemon sends it.</summary>
public static class SpecReader
{
    private const int LongestMessage = 300;

    /// <summary>
    /// Reads and validates a file. Relative paths inside it are relative to its folder. Whether they exist is not checked.
    /// </summary>
    /// <exception cref="SpecException">The file cannot be read or is not a sound spec.</exception>
    public static VmSpec ReadFile(string path)
    {
        string text;
        try
        {
            text = File.ReadAllText(path);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or ArgumentException)
        {
            string problem = Directory.Exists(path) ? "is a directory"
                : e is FileNotFoundException or DirectoryNotFoundException ? "does not exist"
                : e is UnauthorizedAccessException ? "permission denied"
                : e.Message;
            throw new SpecException([new SpecProblem("", problem, path)]);
        }

        return Read(text, path, Path.GetDirectoryName(Path.GetFullPath(path)));
    }

    /// <summary>
    /// Reads and validates a spec text; <paramref name="file"/> is used in messages, <paramref name="folder"/> resolves relative paths
    /// (null leaves them).
    /// </summary>
    /// <exception cref="SpecException">Not a sound spec.</exception>
    /// <exception cref="OperationCanceledException">Nobody wants it any more.</exception>
    public static VmSpec Read(string text, string file, string? folder = null, CancellationToken cancellation = default)
    {
        SpecPass pass = new(file, folder, cancellation);
        VmSpec spec = (VmSpec)pass.ReadObject(ReadRoot(text, file, cancellation), VmFields.Root, "");
        pass.RequireCounts();
        SpecComplaints check = SpecValidation.Check(spec);
        return pass.Sound(spec, check.Problems, check.More);
    }

    /// <summary>Reads and validates one disk: the fields of an entry of <c>disks</c>.</summary>
    /// <exception cref="SpecException">Not a sound disk.</exception>
    public static DiskSpec ReadDisk(string text, string file, string? folder = null)
    {
        SpecPass pass = new(file, folder, CancellationToken.None);
        DiskSpec disk = (DiskSpec)pass.ReadObject(ReadRoot(text, file, CancellationToken.None), VmFields.Part("disks"), "");
        return pass.Sound(disk, DeviceValidation.Check(disk));
    }

    /// <summary>Reads and validates one network device: the fields of an entry of <c>nets</c>.</summary>
    /// <exception cref="SpecException">Not a sound network device.</exception>
    public static NetSpec ReadNet(string text, string file)
    {
        SpecPass pass = new(file, null, CancellationToken.None);
        NetSpec net = (NetSpec)pass.ReadObject(ReadRoot(text, file, CancellationToken.None), VmFields.Part("nets"), "");
        return pass.Sound(net, DeviceValidation.Check(net));
    }

    private static SpecNode ReadRoot(string text, string file, CancellationToken cancellation)
    {
        SpecNode? root;
        try
        {
            root = SpecNode.ReadDocument(new StringReader(text), cancellation);
        }
        catch (YamlException e)
        {
            throw new SpecException(
                [new SpecProblem("", "not valid YAML: " + SpecPass.Clip(e.Message, LongestMessage), file, e.Start.Line, e.Start.Column)]);
        }
        catch (Exception e) when (e is InvalidOperationException or ArgumentException)
        {
            // YamlDotNet 16 lets these escape on some malformed documents (found by the mutation test).
            throw new SpecException([new SpecProblem("", "not valid YAML", file)]);
        }

        return root is null || root.Scalar is "" ? throw new SpecException([new SpecProblem("", "is empty", file)]) : root;
    }
}
