using System.Text.Json;

namespace Vmm.Contracts.Rest;

/// <summary>Images that the daemon keeps.</summary>
public static class ImageRequests
{
    /// <summary>All images.</summary>
    public static Task<ImageList> ImagesAsync(this VmmClient client, CancellationToken cancellation) =>
        client.AskAsync(HttpMethod.Get, "images", null, RestJson.Default.ImageList, cancellation);

    /// <summary>One image.</summary>
    public static Task<ImageInfo> ImageAsync(this VmmClient client, string name, CancellationToken cancellation) =>
        client.AskAsync(HttpMethod.Get, Image(name), null, RestJson.Default.ImageInfo, cancellation);

    /// <summary>Takes a file of the host in; the job is done when disks can stand on it.</summary>
    public static Task<JobInfo> ImportImageAsync(this VmmClient client, ImageRequest wish, CancellationToken cancellation) =>
        client.AskAsync(HttpMethod.Post, "images", JsonSerializer.Serialize(wish, RestJson.Default.ImageRequest),
            RestJson.Default.JobInfo, cancellation);

    /// <summary>Writes a copy of an image into a new file of the host; a job.</summary>
    public static Task<JobInfo> ExportImageAsync(
        this VmmClient client, string name, ImageExportRequest wish, CancellationToken cancellation) =>
        client.AskAsync(HttpMethod.Post, Image(name) + "/export",
            JsonSerializer.Serialize(wish, RestJson.Default.ImageExportRequest), RestJson.Default.JobInfo, cancellation);

    /// <summary>Deletes an image that nothing stands on.</summary>
    public static Task DeleteImageAsync(this VmmClient client, string name, CancellationToken cancellation) =>
        client.TellAsync(HttpMethod.Delete, Image(name), null, cancellation);

    private static string Image(string name) => "images/" + Uri.EscapeDataString(name);
}
