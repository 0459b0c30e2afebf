namespace Vmm.Testing;

/// <summary>The source tree that a test runs in, and the programs published from it.</summary>
public static class Tree
{
    /// <summary>The folder of Vmm.sln.</summary>
    public static string Root { get; } = Find();

    /// <summary>
    /// A program compiled ahead, as users have it: <c>artifacts/publish/FOLDER/NAME</c>. Tests that need one are of tier kvm or host, for
    /// which `make test` publishes first.
    /// </summary>
    public static string Published(string folder, string name)
    {
        string path = Path.Combine(Root, "artifacts", "publish", folder, name);
        return File.Exists(path) ? path : throw new InvalidOperationException($"{path} is missing; 'make publish-tests' builds it");
    }

    private static string Find()
    {
        DirectoryInfo? folder = new(AppContext.BaseDirectory);
        while (folder is not null && !File.Exists(Path.Combine(folder.FullName, "Vmm.sln")))
        {
            folder = folder.Parent;
        }

        return folder?.FullName ?? throw new InvalidOperationException($"there is no Vmm.sln above {AppContext.BaseDirectory}");
    }
}
